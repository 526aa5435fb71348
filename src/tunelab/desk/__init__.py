"""The page in the browser, and the server's doors that are for it alone.

opening       what adds the page to a server

May import: the floors below. What trains runs in processes of its own.
"""
