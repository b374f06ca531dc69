"""``python -m asgi_token_auth``: the command line."""

from asgi_token_auth.cli import main

if __name__ == "__main__":
    main()
