"""What the tool costs, side by side with what it stands in for: `make bench`.

`harness` measures and prints. Each `rows_*` file has rows of the table: what is measured, against what, and the
aim. `laid_out` makes the workspaces and `bare` the same container without the tool. All is kept in `.demo/bench`,
so the second time begins at once.
"""
