"""What test suites import: tools to run agents against and to look at their spans."""
