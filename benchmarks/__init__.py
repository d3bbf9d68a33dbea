"""Speed and memory, as ratios against references written here and measured in the same process."""
