//! Small programs that a newcomer reads first.
