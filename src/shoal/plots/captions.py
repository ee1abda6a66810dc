"""What each picture shows, in a sentence or two: beside it in the report and on the page."""

CAPTIONS = {
    "population": "Each thin line is a member; it has a gap where the member copied another one. "
    "Orange is the winner and what it descends from. Where some are far from all others, the axis "
    "begins without them; the button `all` shows them.",
    "schedule": "Orange is what the winner was trained under, step by step: what PBT has found. "
    "Dots are the other members.",
    "lineage": "Members from bottom to top, steps from left to right. A colour is all that goes "
    "back to one first member; an arrow leads from the member that was copied to the one that did. "
    "Of more than 20 members, what the winner descends from stands out.",
    "survival": "How many members go back to each of the first. One colour that soon takes all is "
    "an early takeover: a larger population, or copying less, keeps more.",
    "exploits": "Above, each line leads from what a member had before it copied to what it had one "
    "step later. Below, how many were better for it.",
    "diversity": "How far the members are apart in each hyperparameter (0: all the same), and how "
    "many of the first members still have descendants.",
    "parallel": "Each line is one step of one member. Drag a box over an axis to "
    "see only the lines through it; orange gained most, and what is dotted failed.",
    "timeline": "What the members' time went into.",
}
