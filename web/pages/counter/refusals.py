"""Why the counter was refused something, in a sentence that says what to do."""

import re
from collections.abc import Callable

from infra.errors import Invalid, Problem, UnsupportedMediaType
from web.localization import N_, pesos

Translate = Callable[[str], str]

STATUSES = {
    "ANNOUNCED": N_("It is only announced: receive it first."),
    "RECEIVED": N_("It is in storage already."),
    "DELIVERED": N_("It was handed over already."),
    "CANCELLED": N_("It was cancelled."),
}

SENTENCES = {
    "The shelf is full: the site has no free position": N_("The shelf is full: hand parcels over or add positions."),
    "Somebody else acted on this package at the same time": N_(
        "Somebody else acted on it at this moment: scan it again."
    ),
    "This phone number belongs to another customer": N_("Another customer has this phone."),
    "This guide number belongs to another parcel": N_("Another parcel has this guide."),
    "The announcement is older than 30 days: receive it by its guide number": N_(
        "The announcement has lapsed: receive it at the counter, by its guide."
    ),
    "This Idempotency-Key came with another body before": N_(
        "This form was sent before, with something else in it. Open the page again."
    ),
    "The package has this photo already": N_("It has this photo already."),
    "The package has 3 photos already": N_("It has three photos already."),
}

FIELDS = {
    "guide_number": N_("A guide has 5 to 50 letters, digits or dashes."),
    "customer_name": N_("A name has 2 to 100 characters."),
    "name": N_("A name has 2 to 100 characters."),
    "phone": N_("That isn't a phone number. Outside Colombia it needs + and the country code."),
    "email": N_("That isn't an e-mail address."),
    "customer_phone": N_("That isn't a phone number. Outside Colombia it needs + and the country code."),
    "amount": N_("An amount is in whole pesos, as $1.500."),
    "position": N_("There is no such position at this site."),
    "observations": N_("Observations have up to 1,000 characters."),
    "other_codes": N_("A parcel has up to 10 other codes, of 3 to 100 characters each."),
    "carrier": N_("A carrier has up to 100 characters."),
    "reason": N_("Give a reason of up to 1,000 characters."),
    "collected_by": N_("A name has 2 to 100 characters."),
    "photo": N_("That photo can't be read. Take it again."),
    "amount_reason": N_("Another amount needs its reason."),
}


def sentence(problem: Problem, _: Translate) -> str:
    """Give the sentence for a refusal; a conflict that nobody foresaw is shown as the service says it."""
    if isinstance(problem, Invalid):
        known = [_(FIELDS[name]) for name in problem.members["errors"] if name in FIELDS]
        return " ".join(dict.fromkeys(known)) or _("Something in the form can't be accepted.")
    if isinstance(problem, UnsupportedMediaType):
        return _("That isn't a photo: it must be JPEG, PNG or WebP.")
    if "due" in problem.members:
        return _("What is due is %(due)s now: another amount needs its reason.") % {
            "due": pesos(problem.members["due"])
        }
    if taken := re.fullmatch(r"Position (\S.*) is taken", problem.detail):
        return _("Position %(position)s is taken.") % {"position": taken[1]}
    status = problem.members.get("package", {}).get("status")
    known_status = STATUSES.get(status) if status else None
    return _(SENTENCES.get(problem.detail) or known_status or problem.detail)
