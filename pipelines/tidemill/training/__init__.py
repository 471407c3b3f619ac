"""From labelled events to a trained version: the snapshot, the user's two classes, the loop that fits them."""
