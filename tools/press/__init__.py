"""The press: runs the chapters, puts their numbers on the page, builds and checks the book."""
