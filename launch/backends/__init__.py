"""Where processes run: the inline, Ray and Slurm backends behind one Command and one Job."""
