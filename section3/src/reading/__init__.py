"""From files to a study, its series, and the volume of one of them; imports common."""
