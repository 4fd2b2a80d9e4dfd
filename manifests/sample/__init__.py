"""A small world with ground truth: rendered people who talk, made from seeds, on the CPU, with NumPy and OpenCV.

    from manifests.sample.motion import talk
    from manifests.sample.person import person
    from manifests.sample.render import render, seat
    from manifests.sample.scene import scene

    who, where = person(7), scene(7, 640, 360)
    motion = talk(phonemes, n_frames, seed=7, rate_hz=25)  # phonemes: ((name, start_s, end_s), ...) of espeak-ng
    for frame, faces in render([seat(who, motion, where)], where):  # frame (360, 640, 3) uint8 RGB
        faces[0].box, faces[0].landmarks, faces[0].mouth_open, faces[0].yaw_deg

People with seeds below 1000 (`person.CORPUS_PEOPLE`) are the corpus's and never trained on. `person(seed)`,
`scene(seed)` and `talk(..., seed)` are independent draws: the same person can sit in many scenes.
`talk((), n, seed)` is a listener; `motion.still(m)` freezes; `motion.pick(m, frames)` chooses frames;
`talk(..., yaw_deg=30)` sits half turned. The lips show the sound at (i + 0.5) / rate_hz: the truth's audio offset is 0.
Everything is deterministic in its seeds. Call `cv2.setNumThreads(1)` in worker processes.
"""
