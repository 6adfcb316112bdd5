"""The questions of the split `drawn`, as a person asks them; they are written apart from those of training."""

ONE = (
    "Where is the {}?",
    "the {}",
    "The {}.",
    "{}",
    "Find the {}.",
    "Can you find the {}?",
    "Show me the {}.",
    "Put a box around the {}, please.",
    "Which one is the {}?",
    "I'm looking for the {}.",
)
ALL = (
    "Find all the {}.",
    "Where are the {}?",
    "all {}",
    "Put a box around each of the {}.",
    "Show me every one of the {}.",
)
IF_ANY = (
    "Is there a {}? If so, where?",
    "Where is the {}, if there is one?",
    "Can you see a {}? Box it.",
    "Find the {}.",
)
WORDS: dict[str, tuple[str, ...]] = {
    "diff": (
        "What is different between these two pictures?",
        "Spot the difference.",
        "These two pictures are the same except for one thing. Where is it?",
        "What changed from the first picture to the second?",
    ),
    "only": (
        "Which one is only in the second picture?",
        "What does the second picture have that the first one doesn't?",
        "Which shape is missing from the first picture? Show it in the second.",
    ),
    "common_object": (
        "Which shape is in {n} pictures? Find it in image {k}.",
        "One thing is in every picture. Where is it in image {k}?",
        "What do these pictures have in common? Box it in image {k}.",
    ),
    "group_grounding": (
        "One of these pictures has a {x}. Where is it?",
        "Find the {x} in these pictures.",
        "Which picture shows a {x}? Box it there.",
    ),
    "refer_grounding": (
        "Find the thing of the first picture in the second picture.",
        "Where in image 2 is what image 1 shows?",
        "Look at the shape in the first picture. Where is it in the second one?",
    ),
}
