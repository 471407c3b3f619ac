"""From sketches and outcomes to signals: has the world moved, and can we promise that it has?"""
