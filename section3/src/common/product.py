"""The name of the product, and what it says wherever a person reads a number."""

PRODUCT = "HippoVolume.AI"
RESEARCH = "Research use only"
NOT_FOR_DIAGNOSIS = f"{RESEARCH}: not for diagnosis."
