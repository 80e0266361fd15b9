"""A sample as a picture: camera images and the view from above, with boxes, points and BEV maps in the same colours.
Pillow and NumPy alone, for whoever wants the first picture at once.
"""
