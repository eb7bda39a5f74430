"""The page of `demo-app`: trained runs in the browser."""
