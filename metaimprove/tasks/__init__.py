"""The distribution of problems: task families on Brax robots with randomised dynamics."""
