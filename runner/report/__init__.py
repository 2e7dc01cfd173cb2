"""What people read of nights: a page, JUnit, annotations, a summary. All of it is made of values, and nothing that a
job wrote is obeyed by what shows it."""
