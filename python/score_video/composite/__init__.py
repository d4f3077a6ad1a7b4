"""A semi-real world: drawn things over real footage and photographs, seen by a real vision tower.

The miniature (:mod:`score_video.miniature`) is quick and wholly known, and its tower is a toy. Here the tower is one
that people use (DINOv2, or any that :func:`score_video.video.tower.load_tower` takes), and the frames are footage and
photographs with a camera that pans, zooms and shakes, through a codec. What is asked is about things laid over them, so
that the answers are known.

media -> drawing, camera -> world -> features -> reader -> environment -> evaluate.
"""
