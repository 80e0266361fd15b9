"""What a user did wrong, said in one sentence; and what nobody did."""


class UserError(Exception):
    """A mistake of the user's: its text names the file or field and the remedy. The CLI prints it and exits with 2."""


class DataError(UserError):
    """A check of data failed: the CLI prints the report and exits with 1."""


class FileSystemError(RuntimeError):
    """The file system failed and went on failing: nobody's mistake, and worth another try later."""


class StageFailed(RuntimeError):
    """The stage's process was killed, or the machine failed it: the same command goes on from there."""
