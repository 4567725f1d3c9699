"""What hosts publish where no trigger writes it: the message that ours sends, less its id."""

import json


def mood(user: str, score: int) -> bytes:
    """A logged mood."""
    data = {"event_type": "mood_logged", "user_id": user, "mood_score": score}
    return json.dumps({"type": "mood_update", "data": data}).encode()
