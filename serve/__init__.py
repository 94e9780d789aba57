"""The HTTP service: artifacts in, answers out; no torch.

`axonnx serve PATH…` starts it (`cli`); `axonnx call` and `client` ask it. A request comes in
through `protocol` (one connection) and `front` (identifiers, keys, counts), is read by `app` with
`formats`, or by `v2_routes` with `v2`, finds its model in `repository` and is run by `engine`.
`settings` is what can be set, `errors` the one error body, `server` the life of the process.
"""
