"""Files of a run: read only where they are files of the folder itself, and written whole."""

from inference.training.files import contents_of, is_temporary, temporary_name, write_whole

__all__ = ["contents_of", "is_temporary", "temporary_name", "write_whole"]
