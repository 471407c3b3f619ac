"""What a version must prove before any traffic: scored on the same rows as the champion, judged by gates."""
