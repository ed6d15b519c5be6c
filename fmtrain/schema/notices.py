"""Phrases by which a sentence is a site's notice and not its text (English): the defaults of filter.notices.phrases.

Cookies and terms; logging in; pages that are not there; what went wrong; what a browser lacks; feet of pages. They
speak to a visitor: documentation of cookies, passwords and errors has those words too.
"""

_PHRASES = """
uses cookies, use cookies, use of cookies, using cookies, accept cookies, support cookies, cookie policy,
cookie settings, cookies (updated), accept all, by continuing, you agree to, privacy policy, terms of use,
terms of service, terms and conditions, log in to, login to, logged in to, first login, please log in, sign in to,
sign in with, signed in to, sign up, register now, register a new, enter your, your password, forgot password,
forgotten your, remember me, create an account, your account, my account, become a subscriber, subscribers can,
page not found, 404 not found, error 404, 403 forbidden, page you, could not be found, cannot be found,
no longer available, page does not exist, access denied, permission to access, no results found, error occurred,
something went wrong, try again, please contact, contact us, enable javascript, javascript is disabled,
javascript is required, your browser, captcha, not a robot, subscribe to our, newsletter, leave a comment,
all rights reserved, copyright ©, copyright (c), ©, powered by, skip to content, skip to main, back to top, follow us
"""
PHRASES = tuple(phrase.strip() for phrase in _PHRASES.replace("\n", " ").split(","))
