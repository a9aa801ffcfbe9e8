"""Raw recordings to a corpus of 16 kHz mono clips at one level, with the ids and labels that they had."""
