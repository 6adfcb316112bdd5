"""How people ask for a set: one wording a line, those of training, then those of the unseen split alone.

`{these}`: "this image", "these pictures". Of one thing by its name (`absent`), as if it were there.
"""

FIND_ALL = (
    """
{many}
all {many}
every {one}
each {one}
all the {many}
all {many} in {these}
every {one} in {these}
where are the {many}?
Where are the {many}?
Where are all {many}?
Where do you see {many}?
Where in {these} are {many}?
Which objects are {many}?
Find all {many}.
find all {many}
Find the {many} in {these}.
Find each {one} in {these}.
Find every {one} that you see.
Locate every {one}.
Locate all {many}.
Locate each {one} in {these}.
Point to every {one}.
Point to all {many}.
Mark every {one}.
Mark all {many} in {these}.
Show me all {many}.
Show me every {one} in {these}.
Show me the {many}.
Box all {many}.
Box every {one} in {these}.
Box each {one}.
Draw a box around every {one}.
Draw boxes around all {many}.
Detect all {many}.
Select every {one}.
Please find all {many}.
Please box every {one} in {these}.
Please mark all {many}.
Can you find all {many}?
Could you show me every {one} in {these}?
Are there {many}? Box all of them.
Are there any {many} in {these}? Find them all.
I need all {many} in {these}.
Look for {many} and box each of them.
Look at {these} and find all {many}.
bounding boxes of all {many}
Give me the boxes of all {many}.
Output the bounding box of every {one} in {these}.
""",
    """
Leave out no {one}: box all that {these} show of it.
Count the {many} and point to every one of them.
However many {many} there are, if any, mark them.
Go through {these} for {many}.
Show each and every {one} in {these}.
Would you please box any {one} that you see?
the {many}, all of them
""",
)

ABSENT = (
    """
{one}
the {one}
{one} in {these}
where is the {one}?
Where's the {one}?
Where is the {one} in {these}?
Where can I find the {one}?
Where do you see the {one}?
Where in {these} is the {one}?
Which one is the {one}?
Which object is the {one}?
find the {one}
find {one}
locate {one}
Locate the {one}.
Find the {one} in {these}.
Find the {one}, if there is one.
Find the {one} if you see it.
Locate the {one}, if it is there.
Point to the {one}.
Point to the {one} in {these}.
Mark the {one}.
Mark the {one}, if there is one.
Show me the {one}.
Show me the {one} in {these}.
Show me where the {one} is.
Box the {one}.
Box the {one} in {these}.
Draw a box around the {one}.
Draw a box around the {one}, if {these} may show it.
Detect the {one}.
Is there {a}?
Is there {a} in {these}?
Is there {a}? Box it.
Do you see {a}?
Do you see {a} in {these}? Box it.
Look for {a} in {these}.
Look for the {one} and box it.
Please find the {one}.
Please find the {one} in {these}.
Can you find the {one}?
Could you find the {one}, please?
Can you show me the {one} in {these}?
I need the {one}.
I want to see the {one}.
Give me the box of the {one}.
bounding box of the {one}
Output the bounding box of the {one} in {these}.
""",
    """
Can you point out the {one} for me?
Someone says there is {a} here. Mark the spot.
I am looking for the {one}; box it if you see it.
Is the {one} anywhere in {these}?
Would you please box the {one}, if there is one?
Help me spot the {one}.
any {one} in {these}?
""",
)

ODD_ONE_OUT = (
    """
odd ones out
the odd ones out
the odd ones out in {these}
what does not fit in
what does not belong
everything that does not belong with the rest
Which objects are the odd ones out?
Which things do not belong?
Which objects in {these} do not fit in with the others?
Which objects are not like the others?
What does not fit in with the rest?
What does not belong in {these}?
Where are the odd ones out?
Where in {these} is what does not belong?
Find the odd ones out.
Find all odd ones out in {these}.
Find every object that is not like the others.
Find what does not belong.
Find each object that does not fit.
Locate the odd ones out.
Locate every object in {these} that does not fit in.
Locate all that does not belong.
Point to the odd ones out.
Point to each object that is not like the rest.
Mark the odd ones out.
Mark everything that does not fit in {these}.
Show me the odd ones out.
Show me what does not belong in {these}.
Show me every object that is not like the others.
Box the odd ones out.
Box each object that does not belong.
Box everything that is not like the rest in {these}.
Draw a box around each odd one out.
Please find the odd ones out in {these}.
Please box what does not belong.
Can you find the odd ones out?
Could you show me what does not fit in {these}?
Most objects in {these} are alike in one way. Find those that are not.
Most things share something. Box each that does not.
All but a few objects have something in common. Find the few.
Look at {these}. Which objects do not belong?
Give me the boxes of all odd ones out.
Output the bounding box of each object that does not fit in.
""",
    """
Spot whatever breaks the rule that the others keep in {these}.
Box the misfits in {these}: what does not fit.
not like the rest
Who does not belong here? Mark them.
Point to whatever is not as most things are.
Pick the odd ones out of all that there is in {these}.
Most things keep to a rule; box those that do not.
""",
)

ODD_ONE_OUT_TOLD = (
    """
odd ones out by {attribute}
the objects of another {attribute}
the odd ones out by {attribute} in {these}
Which objects have another {attribute} than the rest?
Which objects in {these} do not have the {attribute} of the others?
Which ones do not fit by {attribute}?
What has another {attribute} than the others?
Where are the objects with another {attribute}?
Find the odd ones out by {attribute}.
Find every object in {these} that has another {attribute} than the rest.
Find what does not have the {attribute} of the others.
Locate each object with another {attribute}.
Locate the odd ones out by {attribute}.
Point to each object that differs from the rest in {attribute}.
Mark the odd ones out by {attribute}.
Show me the objects whose {attribute} is not that of the others.
Show me what does not fit in by {attribute}.
Box the odd ones out by {attribute}.
Box each object in {these} whose {attribute} is not like the others.
Draw a box around each object of another {attribute}.
Please find the objects with another {attribute} in {these}.
Can you find the odd ones out by {attribute}?
Most objects have the same {attribute}. Box those that do not.
Most objects in {these} share a {attribute}. Find those that have another.
""",
    """
By {attribute}, something breaks the rule that the others keep in {these}. Box it.
Look at the {attribute}: box what does not fit.
As to {attribute}, which objects in {these} are not like the rest?
another {attribute} than most
""",
)
