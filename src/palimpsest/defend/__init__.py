"""Defences by stage: screens of requests, guards of unlearners, releases of models and of answers."""
