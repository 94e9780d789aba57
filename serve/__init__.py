"""The HTTP service: artifacts in, answers out; no torch.

`axonnx serve PATH…` starts it. `settings` is what can be set, `formats` turns bodies into arrays
and back, `slots` bounds what runs at once, `app` holds the routes, `errors` the one error body.
"""
