"""What `ragassets init` writes into a new project folder: configuration, workspace and instance.

Data only. `dagster.yaml` and `workspace.yaml` are the same files as at the top of the repository.
"""
