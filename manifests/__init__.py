"""The nouns: record types, their codec, the store, and lists of videos. Imports none of our other packages."""
