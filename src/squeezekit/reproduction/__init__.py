"""The paper's tables and figure 3, each measured on any data, the paper's value beside ours."""
