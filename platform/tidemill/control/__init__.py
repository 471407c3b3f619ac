"""The loop: decide purely, tick by tick; and the seams through which its decisions take effect."""
