"""Run by the Python of .field/mistral: what Mistral's own validators say of each request, a line for each complaint.

``python mistral_rules.py FILE``: a JSON list of bodies for chat completions. Ends with the number of requests read.
"""

import json
import sys
from pathlib import Path

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import (
    MistralRequestValidatorV5,
    MistralRequestValidatorV11,
    MistralRequestValidatorV13,
    MistralRequestValidatorV15,
    ValidationMode,
)

# The models before them cannot be told that words and a call were said at once.
KINDS = (
    MistralRequestValidatorV5,
    MistralRequestValidatorV11,
    MistralRequestValidatorV13,
    MistralRequestValidatorV15,
)
VALIDATORS = [kind(mode=ValidationMode.test) for kind in KINDS]
bodies = json.loads(Path(sys.argv[1]).read_text())
for number, body in enumerate(bodies):
    for validator in VALIDATORS:
        try:
            request = ChatCompletionRequest.from_openai(messages=body["messages"], tools=body.get("tools"))
            validator.validate_request(request)
        except (MistralCommonException, ValueError) as error:
            print(number, type(validator).__name__, type(error).__name__, str(error)[:300])  # noqa: T201 - the answer
print(len(bodies))  # noqa: T201
