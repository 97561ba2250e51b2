"""The command line ``ray-qjm``: views over ``ray_qjm.api`` and stores, without logic of their own.

Modules here import what is heavy inside functions: ``--help`` and the tab key answer at once.
"""
