"""A body to take radiographs of: limbs and torso, and what they attenuate."""
