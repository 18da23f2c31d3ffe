"""Images that two parts of a study share: hashes, near-duplicates, reports."""
