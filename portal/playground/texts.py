"""What the script of the page says, in the language of the page. Numbers are filled in there."""

from django.utils.translation import gettext as _


def script_texts() -> dict[str, str]:
    return {
        "you": _("You"),
        "reasoning": _("Reasoning"),
        "copy": _("Copy"),
        "edit": _("Edit and send again"),
        "again": _("Answer again"),
        "removedMarks": _("Text-direction controls were made visible."),
        "connecting": _("Connecting…"),
        "lost": _("The connection is lost. It is tried again by itself; what you have typed stays."),
        "lostRun": _("The connection was lost, which ended this run. What arrived is above."),
        "closed401": _(
            "You are signed out. Sign in again; what you have typed stays until you leave the page."
        ),
        "closed403": _("Your role may not use the playground. An owner or administrator can change that."),
        "closed404": _("You are not a member of this organization any more."),
        "closed429": _("The playground is open in too many tabs. Close one and reload this page."),
        "closed1009": _("The conversation was too long to be sent. Clear it or shorten it."),
        "reload": _("Reload"),
        "signIn": _("Sign in"),
        "notConnected": _("Not connected yet. Your message stays here; send it when the connection is back."),
        "finished": _("Answer finished: %(out)s tokens, %(cost)s."),
        "stopped": _("Stopped: %(out)s tokens were delivered and billed with %(cost)s."),
        "stoppedFree": _("Stopped before the first token. Nothing is billed."),
        "length": _("The answer reached max tokens and was cut there. Raise it to get more."),
        "broken": _("Broke off: %(out)s tokens were delivered and billed with %(cost)s."),
        "costLater": _("the cost will be in the usage shortly"),
        "estimated": _("estimated"),
        "measured": _("measured"),
        "receipt": _("Receipt"),
        "waiting": _("Waiting for the first token…"),
        "modelDefault": _("model's default: %(cap)s"),
        "maxOutput": _("At most %(max)s; left empty, %(cap)s."),
        "invalid": _("Check the settings: a value is out of its range."),
        "code": _("Code"),
        "plain": _("Long text is shown without formatting."),
        "cleared": _("Conversation cleared."),
        "emptyAnswer": _("The model answered with no text."),
    }
