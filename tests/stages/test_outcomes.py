"""What sites and servers say is sorted into facts about the video, refusals, and failures that say nothing about it."""

import pytest
from yt_dlp.utils import GeoRestrictedError

from pipeline.stage import Rejection
from stages.outcomes import Refused, Unreachable, outcome, retry_after_s

NOW_S = 1_766_664_000.0  # Thu, 25 Dec 2025 12:00:00 GMT


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("[youtube] x: Private video. Sign in if you've been granted access to this video", "private"),
        ("[vimeo] 1: This video is only available for registered users. Use --cookies", "private"),
        ("[youtube] x: Join this channel to get access to members-only content like this video", "members_only"),
        ("[youtube] x: This video is available to this channel's members on level: Gold", "members_only"),
        ("[youtube] x: This video requires payment to watch", "members_only"),
        ("[youtube] x: Sign in to confirm your age. This video may be inappropriate for some users", "age"),
        ("[youtube] x: The uploader has not made this video available in your country", "geo"),
        (
            "[youtube] x: This video contains content from Y, who has blocked it in your country",
            "geo",
        ),
        ("[generic] x: This video is not available from your location due to geo restriction", "geo"),
        ("[youtube] x: Video unavailable", "gone"),
        ("[youtube] x: This video has been removed for violating YouTube's Terms of Service", "gone"),
        ("[youtube] x: This video is no longer available because the account has been terminated", "gone"),
        ("[youtube] x: Video unavailable. It was removed due to a copyright claim by Z", "gone"),
        ("[youtube] x: This live event will begin in 20 minutes.", "live"),
        ("[youtube] x: Premieres in 3 hours", "live"),
        ("[youtube] x: Video unavailable. This content is not available on this country domain due to a law", "geo"),
        ("[youtube] x: This video isn't available anymore", "gone"),
        ("[twitch:clips] x: This clip is no longer available", "gone"),
        ("[Likee] x: Video was deleted", "gone"),
        ("[vimeo] 1: This video is protected by a password, use the --video-password option", "private"),
        ("[dropbox] 1: Password protected video, use --video-password <password>", "private"),
        ("[TikTok] 1: Your IP address is blocked from accessing this post", "blocked"),
        ("[twitter] 1: No video could be found in this tweet", "not_a_video"),
        ("[youtube:truncated_url] Did you forget to quote the URL? Remember that & is a meta character", "not_a_video"),
        ("[generic] Unsupported URL: https://example.org", "not_a_video"),
        ("[generic] x: No video formats found!", "not_a_video"),
        ("[generic] x: This video is DRM protected", "blocked"),
        ("10 bytes read, 90 more expected. Giving up after 1 retries", "truncated"),
    ],
)
def test_words_about_the_video_reject_it(said, reason):
    result = outcome(RuntimeError(f"\x1b[0;31mERROR:\x1b[0m {said}"))
    assert isinstance(result, Rejection)
    assert result.reason == reason
    assert result.measured["said"].startswith(said[:40])


@pytest.mark.parametrize(
    "said",
    [
        "[youtube] x: Sign in to confirm you’re not a bot. Use --cookies-from-browser or --cookies",
        "[youtube] x: Sign in to confirm you're not a bot",
        "[youtube] x: Video unavailable. This content isn't available, try again later. The session was rate-limited",
        "[generic] x: Unable to download webpage: HTTP Error 429: Too Many Requests",
        "[youtube] x: YouTube is requiring a captcha challenge before playback",
        "\r[download] Got error: HTTP Error 403: Forbidden. Giving up after 5 retries",
        "[BilibiliSpaceVideo] 1: Request is blocked by server (412), please wait and try later.",
        "[BilibiliSpaceVideo] 1: Request is rejected by server (352)",
        "[youtube] x: All player responses are invalid. Your IP is likely being blocked by Youtube",
        "[Instagram] x: You have exceeded the rate-limit for this endpoint. Use --cookies for the authentication",
    ],
)
def test_words_about_us_are_a_refusal_and_never_a_rejection(said):
    assert isinstance(outcome(RuntimeError(said)), Refused)


@pytest.mark.parametrize(
    "said",
    [
        "Unable to download webpage: [Errno -3] Temporary failure in name resolution",
        "Unable to download webpage: HTTPSConnectionPool: Read timed out",
        "Unable to download webpage: HTTP Error 500: Internal Server Error",
        "[youtube] x: Unable to extract player version; please report this issue on https://github.com",
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired",
        "something never seen before",
        "Unable to download webpage: HTTPSConnection(host='rental.example.org', port=443): Failed to resolve "
        "'captcha.example.org' ([Errno -2] Name or service not known)",
        "[youtube] x: Requested format is not available. Use --list-formats for a list of available formats",
        "[youtube:tab] x: No video formats found!",
        '[generic] a: Unable to download webpage: Unable to handle request: Unsupported proxy type: "sock5" (requests, '
        'urllib), Unsupported url scheme: "http" (websockets)',
    ],
)
def test_all_else_says_nothing_about_the_video(said):
    assert isinstance(outcome(RuntimeError(said)), Unreachable)


@pytest.mark.parametrize("kept_from", ["in Sweden", "to subscribers in Sweden: log in to see it"])
def test_what_a_site_keeps_from_a_country_is_geo_in_whatever_words(kept_from):
    result = outcome(GeoRestrictedError(f"Shown only {kept_from}"))
    assert isinstance(result, Rejection) and result.reason == "geo"


def test_the_message_is_one_short_line_without_colours_and_advice():
    result = outcome(RuntimeError("\x1b[0;31mERROR:\x1b[0m odd\n thing; please report this issue on X" + "y" * 999))
    assert result == Unreachable("odd thing")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Thu, 25 Dec 2025 12:01:30 GMT", 90.0),
        ("Thu, 25 Dec 2025 11:00:00 GMT", 0.0),
        ("soon", None),
        ("Fri, 31 Dec 99999999999 23:59:59 GMT", None),
        ("-5", None),
        ("\xb2", None),
        ("1766664000", 86400.0),
        ("9" * 400, 86400.0),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value, seconds):
    assert retry_after_s(value, NOW_S) == seconds
