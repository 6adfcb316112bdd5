"""How people ask about one image or one film: one wording a line, those of training, then those of `unseen` alone."""

REFERRING = (
    """
{one}
the {one}
where is the {one}?
Where's the {one}?
Where is the {one} in this image?
Where can I find the {one}?
Where do you see the {one}?
Where in the picture is the {one}?
Which one is the {one}?
Which object is the {one}?
What is the position of the {one}?
find the {one}
find {one}
locate {one}
Locate the {one} in the image.
Find the {one} in this picture.
Please find the {one}.
Please locate the {one} in the image.
Point to the {one}.
Point at the {one}.
Mark the {one}.
Show me the {one}.
Show me where the {one} is.
show the {one}
Box the {one}.
Draw a box around the {one}.
Put a box around the {one}.
Detect the {one}.
Select the {one}.
Highlight the {one}.
Tell me where the {one} is.
Give me the box of the {one}.
Give the coordinates of the {one}.
bounding box of the {one}
{one}, where is it?
{one} bounding box
I want to see the {one}.
I need the {one}.
Could you find the {one}?
Can you locate the {one}, please?
Can you show me the {one}?
Do you see the {one}? Box it.
Look for the {one} and give its bounding box.
Find the {one} and draw a box around it.
Output the bounding box of the {one}.
Return the box of the {one}.
""",
    """
Can you point out the {one} for me?
I am looking for the {one}; box it.
Mark the spot with the {one}.
Help me spot the {one}.
position of the {one}
Would you please box the {one}?
There: the {one}. Where exactly?
""",
)

IMPLICIT = (
    """
{instruction}
Find {instruction}.
find {instruction}
Locate {instruction}.
Find {instruction} in this image.
Locate {instruction} in the picture.
Where is {instruction}?
Where in this image is {instruction}?
Where do you see {instruction}?
Where can I find {instruction}?
Which object is meant: {instruction}?
Which of these is {instruction}?
Point to {instruction}.
Point at {instruction}.
Mark {instruction}.
Show me {instruction}.
Show {instruction}
Box {instruction}.
Draw a box around {instruction}.
Put a box around {instruction}.
Select {instruction}.
Highlight {instruction}.
I want {instruction}.
I need {instruction}.
I need {instruction}. Where is it?
I want to see {instruction}.
One of these objects is {instruction}. Box it.
Please find {instruction}.
Please show me {instruction}.
Please point to {instruction}.
Can you find {instruction}?
Can you show me {instruction}?
Could you locate {instruction}, please?
Do you see {instruction}? Box it.
Look for {instruction} and box it.
Think about what is meant and box it: {instruction}.
bounding box of {instruction}
Give me the box of {instruction}.
Output the bounding box of {instruction}.
""",
    """
Can you point out {instruction} for me?
I am looking for {instruction}; box it.
Mark the spot with {instruction}.
Help me spot {instruction}.
position of {instruction}
Look, {instruction}! Where?
Would you please box {instruction}?
""",
)

VIDEO = (
    """
{instruction}, third frame
{instruction}, in the third image
{instruction} in frame 3
Find {instruction} in the third frame.
Find {instruction} and box it in the third image.
find {instruction}, frame 3
Locate {instruction} in the third image.
Locate {instruction} in frame 3.
Where in the third frame is {instruction}?
Where in image 3 is {instruction}?
Where is {instruction} in the third frame?
Point in frame 3 to {instruction}.
Point to {instruction} in the third image.
Mark {instruction} in the third frame.
Mark in image 3 {instruction}.
Show me {instruction} in the third frame.
Show me in the third image {instruction}.
Box {instruction} in the third frame.
Box {instruction} in image 3.
Draw a box in the third frame around {instruction}.
Draw a box around {instruction} in image 3.
Please find {instruction} in the third image.
Please box {instruction} in the third frame.
Can you find {instruction} in the third frame?
Could you show me {instruction} in image 3?
These are frames of a video. Find {instruction} in the third frame.
These images are a short film. Box {instruction} in the third image.
Watch the video and box {instruction} in the third frame.
Look at all frames. Where in the third one is {instruction}?
Look at the whole video, then box {instruction} in frame 3.
In this video, find {instruction}. Box it in the third frame.
In the third frame, where is {instruction}?
In the third image, box {instruction}.
Third frame: {instruction}.
Give me the box of {instruction} in the third frame.
Output the bounding box of {instruction} in image 3.
""",
    """
Watch closely and mark {instruction} in the third image.
Can you point out {instruction} in the third frame for me?
I am looking for {instruction}; box it in the third picture.
Stop at the third frame and point to {instruction}.
Help me find {instruction} in image 3.
video, third image: {instruction}
Go to frame 3 and mark the spot with {instruction}.
""",
)

# In training beside those of `single_image.USES`, in the unseen split in place of theirs: what it asks for is said in
# words of training, since no model that only saw this world can know what sizzles on a stove.
MORE_USES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "house": (
        ("a building to live in", "something with a roof and walls"),
        ("a building with a roof", "where a family keeps warm"),
    ),
    "tree": (
        ("a tall plant", "a plant with leaves and a trunk"),
        ("a plant that birds live in", "what grows leaves in a garden"),
    ),
    "mug": (
        ("something to drink from", "what you hold to drink your coffee"),
        ("what you would drink tea from", "something for your coffee"),
    ),
    "mushroom": (
        ("something that grows in the forest and has a cap", "what you may pick in the forest and eat"),
        ("what grows in the forest when it rains", "something from the forest floor with a cap"),
    ),
    "umbrella": (
        ("what you hold over your head in the rain", "something to carry against the rain"),
        ("what you open to keep dry", "something you hold when it rains"),
    ),
    "pan": (
        ("what you put on the stove to fry something", "something to fry fish in"),
        ("a tool to fry an egg with", "what you put on the stove for pancakes"),
    ),
    "lamp": (
        ("what you switch on in the evening", "something that makes light"),
        ("what you switch on at night", "something that gives light when it is dark"),
    ),
    "car": (
        ("something to drive in", "what drives on a road"),
        ("something with wheels to drive to work", "what you drive on the road"),
    ),
    "table": (
        ("what you sit at to eat", "something to put plates on"),
        ("furniture to put the plates on", "where you sit to eat dinner"),
    ),
    "bucket": (
        ("something to carry a lot of water in", "what you fill with water to wash the floor"),
        ("what you carry a lot of water in", "something to wash the floor with water from"),
    ),
    "key": (
        ("something to open a door with", "what you put in a lock"),
        ("what turns in a door to open it", "something that a lock needs"),
    ),
    "lock": (
        ("something to keep a door shut", "what a key opens"),
        ("what thieves cannot open without the key", "something that keeps a door shut"),
    ),
}

ODD_ONE = (
    """
the odd one out by {word}
the one with another {word} than the rest
the only object with a {word} of its own
the object whose {word} is not like the others
the one thing that differs from the others in {word}
what does not have the {word} of all the others
the object that does not fit by {word}
""",
    """
the object whose {word} no other object shares, while the others share one
the only one with another {word}
what is not like the rest in {word}
""",
)

FILM = {
    "mover": (
        """
the object that moves while the others stay still
the one that moves
the only thing that moves
the moving object
what moves
the object that does not stay still
what does not stay in its place
""",
        """
whatever does not stay where it was
what does not keep its place
the only one that goes somewhere
""",
    ),
    "direction": (
        """
the object that moves {way}
the one that moves {way}
the thing moving {way}
what moves {way}
what goes {way}
the only thing going {way}
""",
        """
what is travelling {way}
the only one to move {way}
whatever goes {way}
""",
    ),
    "recolour": (
        """
the object that changes its colour
the one that changes colour
the thing with a new colour
what changes its colour
what does not keep its colour
the only object whose colour changes
""",
        """
what will not keep its paint
the one whose colour is new
what takes another colour
""",
    ),
}
