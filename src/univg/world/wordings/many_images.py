"""How people ask about a series of images: one wording a line, those of training, then those of `unseen` alone.

`{n}`: the image asked for, as a number from 1; `{nth}`: as a word, "third". `{box}`: the marked box in numbers, which
people seldom give. Tracking is asked of frames, moving things, following; several views of the same object and scene.
"""

COMMON_OBJECT = (
    """
Which object is in all images? Find it in image {n}.
Which thing is in all pictures? Box it in the {nth} picture.
What do all images have in common? Locate it in the {nth} image.
What do these pictures share? Box it in picture {n}.
What is in every image? Find it in the {nth} image.
the common object in image {n}
the object that is in all images, in the {nth} image
common object, image {n}
shared object in the {nth} image
what all have in common, image {n}
Where is the common object in image {n}?
Where is the shared object in the {nth} image?
Where in the {nth} picture is the thing that all pictures show?
Where in image {n} is the object that is in every image?
Find the common object in image {n}.
Find the shared object in the {nth} image.
Find what all images share and box it in the {nth} image.
Find the one object that is in every picture. Box it in picture {n}.
Locate the common object in image {n}.
Locate the object that all images have in common in the {nth} image.
Point to the common object in the {nth} image.
Point to the thing in image {n} that is in all images.
Mark the common object in image {n}.
Mark in the {nth} image what is in all of them.
Show me the common object in the {nth} image.
Show me in image {n} what all the images share.
Box the common object in image {n}.
Box the object of the {nth} image that is in all others too.
Draw a box around the common object in image {n}.
Please find the common object in the {nth} image.
Please box the object of image {n} that every image has.
Can you find the common object in image {n}?
Could you show me in the {nth} picture what all pictures share?
One object is in all of these images. Where is it in image {n}?
One thing is in every picture. Find it in the {nth} picture.
All images show one same object. Box it in the {nth} image.
The same object is in all images. Locate it in image {n}.
Compare the images. Which object do they share? Box it in the {nth} image.
Look for the object that comes back in every image and box it in image {n}.
Only one object is in all pictures. Where is it in the {nth} picture?
Give me the bounding box of the common object in the {nth} image.
Output the box of the shared object in image {n}.
""",
    """
Exactly one object turns up in every picture. Where is it in the {n}th image?
Which thing do all of them show? Mark it in picture {n}.
The other things change; one is always there. Box it in the {nth} image.
common to all, picture {n}
Point in image {n} to what every one of them has.
Which object comes back each time? Show it in image {n}.
Help me with the thing that all pictures share: where is it in the {nth} image?
""",
)

OBJECT_TRACKING = (
    """
Track the object in the red box. Where is it in image {n}?
Track the marked object to image {n}.
Track the object marked in the first frame to the {nth} frame.
track it to frame {n}
track the red box, image {n}
the tracked object in image {n}
tracked object, frame {n}
the moving object of the red box in the {nth} image
Where is the tracked object in image {n}?
Where is the object of the red box in the {nth} frame?
Where is it in frame {n}?
Where has the marked object moved in the {nth} image?
Where does the marked object go? Box it in frame {n}.
Where is the object({box}) of the first frame in the {nth} frame?
The moving object at {box} in the first image: where is it in image {n}?
In the first frame an object is at {box}. Find it in frame {n}.
Follow the marked object. Where is it in the {nth} frame?
Follow the object in the red box to image {n}.
Follow it to the {nth} image.
Find the tracked object in frame {n}.
Find the moving object of the red box in the {nth} image.
Find the object marked in red in the first frame again in frame {n}.
Locate the tracked object in the {nth} image.
Locate the tracked object in frame {n}.
Locate the moving object marked with the red box({box}) in image {n}.
Point to the tracked object in the {nth} frame.
Mark the tracked object in the {nth} image.
Mark the object of the red box again in frame {n}.
Show me the tracked object in frame {n}.
Show me where the object of the red box has moved in the {nth} image.
Box the tracked object in frame {n}.
Box the moving object of the red box in the {nth} frame.
Draw a box around the tracked object in image {n}.
Please track the object in the red box and box it in the {nth} image.
Please follow the marked object and find it in frame {n}.
Can you track the marked object to image {n}?
Can you follow the object({box}) to the {nth} frame?
Could you show me where the tracked object is in frame {n}?
The objects move. The one in the red box: where is it in image {n}?
Things move from frame to frame. Find the marked one in the {nth} frame.
The first frame marks an object. Track it and box it in frame {n}.
The red box in the first frame({box}) marks an object. Track it and find it in the {nth} frame.
These are frames of a video. Track the object in the red box to frame {n}.
Give me the box of the tracked object in the {nth} frame.
Output the bounding box of the tracked object in frame {n}.
""",
    """
Follow the object in the red frame({box}) of the first image. Where is it in the {n}th image?
Keep an eye on the object in the red box. Where is it in frame {n}?
Go after the marked object and box it in frame {n}.
Where did the object of the red box go? Mark it in the {nth} frame.
follow the red box, frame {n}
It starts at {box} and moves. Find it in the {nth} image.
Stay with the tracked object to frame {n}, then point to it.
""",
)

MULTI_VIEW = (
    """
the marked object in image {n}
marked object, image {n}
the same object in image {n}
the marked object, seen again in the {nth} image
the object of the red box, in image {n}
same object in the {nth} image
Where is the marked object in the {nth} image?
Where is the same object in image {n}?
Where is the object of the red box in the {nth} image?
Where do you see the marked object in image {n}?
Which object of image {n} is the marked one?
Which thing in the {nth} image is the one in the red box?
Find the marked object in image {n}.
Find the same object in the {nth} image.
Find the object of the red box again in image {n}.
Find the marked object({box}) in the {nth} image.
Locate the marked object in image {n}.
Locate the same object in the {nth} image.
Locate the object({box}) of the first image in image {n}.
Point to the same object in the {nth} image.
Point to the marked object in image {n}.
Mark the same object in image {n}.
Mark the object of the red box in the {nth} image.
Show me the same object in image {n}.
Show me the marked object in the {nth} image.
Box the same object in image {n}.
Box the marked object in the {nth} image.
Draw a box around the same object in image {n}.
Please find the marked object in the {nth} image.
Please box the same object in image {n}.
Can you find the same object in the {nth} image?
Could you show me the marked object in image {n}?
The camera has moved. Where is the marked object in image {n}?
All images show one scene from several sides. Box the marked object in the {nth} image.
These are views of one scene. The first marks an object({box}). Find it in image {n}.
One scene, several views. Where is the marked object in the {nth} image?
The first view marks an object. Find it in image {n}.
In the first image an object is marked({box}). Locate it in the {nth} image.
The same scene from another side: where is the marked object in image {n}?
Match the marked object with the same one in image {n}.
Give me the box of the marked object in image {n}.
Output the bounding box of the same object in the {nth} image.
""",
    """
One scene, several cameras. The first image frames an object({box}). Box it in the {n}th image.
From this other side, which is the marked object? Show it in image {n}.
Seen by another camera, where is the object of the red box in the {nth} image?
marked object again, picture {n}
Whatever the view, point to the marked object in the {nth} image.
The view is new in picture {n}. Where is the same object now?
Help me find the marked thing in the {nth} picture.
""",
)

REGION = (
    """
Where in the source image does the {nth} cut-out come from?
From where in the source image is the {nth} cut-out?
Where in the first image is the {nth} cut-out?
Where in the source image is cut-out {n}?
Where was piece {n} cut from the source image?
Where does piece {n} belong in the source image?
Which part of the source image is cut-out {n}?
Which area of the first image does the {nth} piece show?
the {nth} cut-out in the source image
cut-out {n} in the source image
region {n}, source image
piece {n}, source image
piece {n}, where in the source image?
the place of piece {n} in the source image
Find the {nth} cut-out in the source image.
Find piece {n} in the source image.
Find region {n} in the first image.
Find where in the source image the {nth} piece was cut from.
Locate the {nth} cut-out in the source image.
Locate region {n} in the first image.
Locate piece {n} in the source image.
Point to the {nth} cut-out in the source image.
Mark the {nth} piece in the source image.
Mark where region {n} is in the first image.
Show me where in the source image cut-out {n} comes from.
Show me the {nth} region in the source image.
Box cut-out {n} in the source image.
Box the place in the first image that the {nth} piece shows.
Draw a box around the {nth} region in the source image.
Put piece {n} back: where in the source image does it go?
Put the {nth} cut-out back in its place in the source image.
Match the {nth} cut-out with its place in the source image.
Please find the {nth} piece in the source image.
Please locate cut-out {n} in the first image.
Can you find the {nth} region in the source image?
Could you show me where piece {n} belongs in the source image?
The first image is the source; what follows is cut from it. Where is cut-out {n}?
A source image, then what was cut from it. Where in the source image is the {nth} piece?
The source image comes first, then its regions. Box the {nth} region in the source image.
The {nth} region shows a part of the source image. Which part?
Give me the box of cut-out {n} in the source image.
Output the bounding box of region {n} in the source image.
""",
    """
Cut-outs follow a source image. From where in the source image was the {n}th cut-out taken?
From which place in the source image was region {n} cut?
Like a puzzle: which spot of the source image does piece {n} fill?
cut-out {n}, back in the source image
Look back at the source image and mark piece {n}.
In the source image, which area is the same as the {nth} cut-out?
Box in the source image what the {nth} region shows.
""",
)

GROUP_GROUNDING = (
    """
One of the images shows {a}. Find it.
One of these pictures has {a}. Where is it?
Which image has {a}? Box it.
Which picture shows the {one}? Box it there.
Which of these images has the {one}? Locate it.
the {one} in one of the images
the {one} in this group of images
{one}
{one}, one of these images
{one}, any image
Where is the {one}?
Where is the {one} in these images?
Where in these pictures is the {one}?
In which image is the {one}, and where?
In which picture is the {one}? Mark it.
find the {one}
Find the {one} in these images.
Find the {one} in this group of pictures.
Find the image with the {one} and box it.
Find {one} in these images.
Locate the {one} in these images.
Locate the {one}; only one image has it.
Point to the {one} in one of these pictures.
Mark the {one} in the image that has it.
Mark the {one} in one of the images.
Show me the {one} in these images.
Show me which image has the {one}, and where.
Box the {one} in these pictures.
Box the {one} in the image where it is.
Draw a box around the {one} in one of these images.
Please find the {one} in these images.
Please look at all images and box the {one}.
Can you find the {one} in these images?
Could you show me the {one}? It is in one of the pictures.
Only one image has the {one}. Find it.
In one of these images there is {a}. Where is it?
Look at all the images. Where is the {one}?
Look in all the pictures for the {one}.
Only one of them shows it: the {one}. Box it.
Give me the box of the {one}; it is in one of the images.
Output the bounding box of the {one} in the image that shows it.
""",
    """
One of these pictures contains it: {a}. Box it there.
Go through these pictures and point to the {one}.
Somewhere in these images is {a}. Mark it.
I am looking for the {one}; box it in the picture that has it.
Help me find the {one} in these pictures.
{one}, in one picture
Not every image has the {one}. Show me where it is.
""",
)
