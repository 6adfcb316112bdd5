"""How people ask about two images: one wording a line, those of training, then those of the unseen split alone.

What changed stands on either image, so those wordings name none. A difference between two viewpoints is asked for as
the real one, in the second image.
"""

DIFF = (
    """
what changed?
What changed?
What is different?
What's the difference?
spot the difference
Spot the difference.
difference
the difference between the two images
the one thing that is different
What has changed between these two images?
What is different between these pictures?
Where do these two images differ?
Where is the difference?
Where are the two pictures not the same?
Which object is not the same in both images?
Which part of the picture is different?
Find the difference.
Find what is different.
Find the one thing that is not the same.
Find the place where these images differ.
Locate the difference.
Locate the change.
Locate what changed.
Point to the difference.
Point to what changed.
Mark the difference.
Mark the place that changed.
Show me the difference.
Show me what changed.
Box the difference.
Box what is different.
Draw a box around the difference.
Please find the difference between the two images.
Please mark what has changed.
Please show me where the two pictures differ.
Can you find the difference?
Could you tell me what is different?
Can you see what changed? Box it.
Compare the two images. What is different?
Compare both pictures and box the difference.
Look at both images and find the one difference.
These two images are the same but for one thing. Find it.
These two pictures are nearly the same. Where do they differ?
There is one difference between these images. Where is it?
Only one thing is different here. Locate it.
Give me the bounding box of the difference.
Output the coordinates of the difference between these images.
""",
    """
One thing is not the same in these two pictures. Where is it?
Something is different here. Box it.
One of two pictures was changed. Where?
What does not match between both images?
find the change between the two pictures
Which spot is not the same?
I cannot see the difference; can you mark it?
""",
)

VIEW_DIFF = (
    """
Apart from the camera, what changed in the second image?
What really changed in the second image?
What is really different in the second image?
the real difference in the second image
the real change in image 2
real difference, second image
what really changed, image 2
What changed in the second image besides the viewpoint?
What changed in image 2 other than the view?
The camera moved. What else is different in the second image?
The camera moved. Which object in the second image is new or changed?
The view has changed, and so has one object. Find it in the second image.
The viewpoint is not the same. Find the real difference in the second image.
Which object in the second image is really different?
Which thing in image 2 was not there before, whatever the view?
Where is the real difference in the second image?
Where is the real change in image 2?
Find the real difference in the second image.
Find the real change in image 2.
Find what really changed and box it in the second image.
Locate the real difference in the second image.
Locate what really changed in image 2.
Point to the real difference in the second image.
Point to what really changed in the second picture.
Mark the real difference in the second image.
Mark in image 2 the difference that is not due to the camera.
Show me the real difference in the second image.
Show me what really changed in the second picture.
Box the real difference in the second image.
Box what really changed in image 2.
Draw a box around the real difference in the second image.
Please find the real difference in the second image.
Please ignore the camera and box what changed in the second image.
Ignore the new viewpoint. What is different in the second image?
Ignore that the camera moved: where is the change in the second image?
Can you find the real difference in image 2?
Could you show me what really changed in the second image?
Compare the two views and find the real difference in the second image.
Two views of one scene: what is different in the second image?
Both images show the same scene from two sides. One object differs. Box it in the second image.
The same scene, seen from another side. What has really changed in the second image?
Not all that looks different is different. Box the real change in the second image.
Give me the bounding box of the real difference in image 2.
""",
    """
The camera moved, and one thing really changed. Locate it in the second image.
Forget the camera: what is really different in picture 2?
Seen from another side, one thing in the second image is really different. Mark it.
Which change in the second picture is not due to the camera?
real change, picture 2
Leave the viewpoint aside and mark the difference in image 2.
The views differ, and so does one object. Show it in the second picture.
""",
)

REFER_GROUNDING = (
    """
Where is the object of the first image in the second image?
Where is it in the second image?
Where is this object in image 2?
Where in the second image is it?
Which object of image 2 is in image 1 too?
Which object in the second image is the one of the first image?
Which one in image 2 is it?
Which thing in the second picture is this?
the object of the first image in the second image
the object of image 1 in image 2
the same thing in the second image
same thing, image 2
this one in the second image
it, in image 2
Find the object of the first image in the second image.
Find the object of image 1 in image 2.
Find it in the second image.
Find this in the second picture.
Find the same thing in image 2.
Find what the first image shows in the second image.
Locate the object of the first image in the second image.
Locate this object in image 2.
Locate it in the second picture.
Point to the object of the first image in the second image.
Point to it in image 2.
Point to this in the second image.
Mark the object of image 1 in image 2.
Mark it in the second image.
Show me the object of the first image in the second image.
Show me where it is in image 2.
Show me this one in the second picture.
Box the object of the first image in the second image.
Box it in image 2.
Draw a box around this object in the second image.
Please find the object of the first picture in the second picture.
Please show me this object in image 2.
Can you find it in the second image?
Could you find the object of image 1 in image 2?
Do you see it in the second image? Box it.
The first image shows an object. Find it in the second image.
The first picture shows what to look for. Box it in the second picture.
Image 1 shows one thing. Box the same thing in image 2.
Look at the first image, then box its object in the second image.
Give me the box of this object in the second image.
Image 1 shows it. Output its bounding box in image 2.
""",
    """
Spot the object of image-1 again: box it in image-2.
This is the first picture. Mark its object in the second picture.
In image 2, where is the thing from image 1?
As the first picture shows it, select it in the second image.
thing of picture 1, in picture 2
Look for this one again: box it in the second image.
Where does the first picture's object come back in image 2?
""",
)

SAME = (
    """
Which object in the second image has the same {attribute} as the one in the first image?
Which thing in image 2 has the same {attribute} as the thing in image 1?
Which one in the second image has the same {attribute}?
What in the second image has the same {attribute} as the object of the first?
the object in image 2 with the same {attribute}
same {attribute}, second image
the thing with the same {attribute} in the second image
Where in the second image is an object of the same {attribute} as in the first image?
Find the object in the second image that has the same {attribute} as the one in the first.
Find what has the same {attribute} in image 2.
Locate in the second image the object with the same {attribute} as the one in image 1.
Point to the object in the second image that has the same {attribute}.
Mark the thing in image 2 that has the same {attribute} as the object in image 1.
Show me the object of the same {attribute} in the second image.
Box the object in the second image that has the same {attribute} as the object in the first.
Please find the object in image 2 with the same {attribute} as in image 1.
Can you find the object of the same {attribute} in the second image?
One object has the same {attribute} as the object in the first image. Box it in the second image.
Look at the {attribute} of the object in image 1 and find that {attribute} in image 2.
""",
    """
Only one thing in Image-2 agrees in {attribute} with what Image-1 shows. Show it in Image-2.
Look at the {attribute} alone: what in the second picture is the same?
the same {attribute} again, picture 2
Which object of the first image shares its {attribute} with one in image 2? Mark that one in image 2.
""",
)

MISSING = (
    """
Which object in the second image is not in the first?
Which thing in image 2 is missing from image 1?
Which one in the second image is new?
What is new in the second image?
What is in the second image but not in the first?
the new object in the second image
new object, image 2
the one more thing in image 2
Where is the new object in the second image?
Find the new object in the second image.
Find what is in image 2 but not in image 1.
Locate the object of the second image that the first does not show.
Point to what is new in the second image.
Mark the new thing in image 2.
Show me which object was added in the second image.
Box the object in the second image that is not in the first.
Please find the object in image 2 that was not in image 1.
Can you find the new object in the second image?
The second image has all objects of the first and one more. Box that one in the second image.
One object is only in the second image. Where is it?
""",
    """
Something has joined the objects of Image-1. What is new in Image-2?
Which thing came in only with picture 2?
the one more object, second picture
Mark the object in image 2 that was not there in image 1.
""",
)

PARTNER = (
    """
Which object in the second image goes together with the one in the first image?
Which thing in image 2 goes with the thing in image 1?
Which one in the second image goes with it?
What in the second image belongs with the object of the first?
the object that goes with it, in image 2
goes together, second image
what belongs to it in the second image
Where in the second image is what goes with the object of the first?
Find the object in the second image that goes together with the one in the first.
Find what belongs with it in image 2.
Locate in the second image what goes with the object of image 1.
Point to what goes with it in the second image.
Mark the thing in image 2 that belongs with the thing in image 1.
Show me what goes together with it in the second image.
Box the object in the second image that goes with the object in the first.
Please find what belongs in image 2 to the object in image 1.
Can you find the object in the second image that goes with it?
The object in the first image goes together with one in the second image. Box it in the second image.
""",
    """
Image-1 shows one half of a pair. Find the other half in Image-2.
Which thing in picture 2 would you use together with it?
belongs together, second picture
Put the two pictures together: mark what goes with it in image 2.
""",
)

CORRESPONDENCE = (
    """
Which part in the second image does the same as the marked part in the first?
Which part of the object in image 2 has the same job as the part in the red box?
Which part of image 2 has the same function?
What in the second image is used in the same way as the marked part?
Where is the part with the same function in the second image?
Where in image 2 is the part that does the same job?
Where is the corresponding part in the second image?
the corresponding part in the second image
the part with the same function in image 2
same function, second image
same part, image 2
the part in image 2 that does the same as the one in the red box
Find the corresponding part in the second image.
Find the part with the same function in image 2.
The marked part of the first object has a job. Find what does it in the second image.
Find what has the same use in the second image.
Locate the corresponding part in image 2.
Locate the part in the second image with the same function as the marked part.
Point to the corresponding part in the second image.
Point to the part that does the same job in image 2.
Mark the corresponding part in the second image.
Mark the part of image 2 with the same function.
Show me the corresponding part in image 2.
Show me which part does the same job in the second image.
Box the corresponding part in the second image.
Box the part in image 2 that has the same function as the one in the red box.
Draw a box around the part with the same function in the second image.
Please find the part in the second image that does the same as the marked part.
Please box the corresponding part in image 2.
Can you find the part with the same function in the second image?
Could you show me the corresponding part in image 2?
A part is marked. Find its like in the second image, the part with the same function.
The red box marks a part. Which part in image 2 does the same job?
The two objects have a part with the same function. Box it in the second image.
Look at the part in the red box. Where is its like in the second image?
Two objects, one job: box the part that does it in the second image.
Give me the box of the corresponding part in the second image.
Output the bounding box in image 2 of the part with the same function.
""",
    """
Which area of the second image does the same job as the one framed in the first image?
What does that job in picture 2?
Which part of the second object has the same use? Mark it in image 2.
corresponding part, second picture
Find in image 2 the part that works like the marked one.
By its use, not by its looks: point to the same part in the second image.
Show the same function in the second picture, please.
""",
)
