"""Chat templates as official checkpoints have them: what each writes, and where it is kept.

Written after the published files, so that readers and renderers can be tried without a hub.
"""

_IMAGES = (
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' "
    "}}{{ '\n' }}{% endfor %}"
)


def _texts(written: str) -> str:
    """A loop over a message's texts."""
    return (
        "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
        + written
        + "{% endfor %}"
    )


# llava-1.5-7b-hf and 13b: no end token after an answer; chat_template.json.
LLAVA_15 = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': ' }}{% endif %}{# Render all images first #}"
    + _IMAGES
    + "{% if message['role'] != 'assistant' %}"
    + _texts("{{ content['text'] + ' ' }}")
    + "{% else %}"
    + _texts("{% generation %}{{ content['text'] + ' ' }}{% endgeneration %}")
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# Their children of HuggingFaceH4 (vsft): without generation marks.
LLAVA_15_VSFT = LLAVA_15.replace("{% generation %}", "").replace("{% endgeneration %}", "")
# v1.6-mistral-7b and bakLlava: "<\s>" is four characters and no token; other roles raise.
LLAVA_16_MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    + _IMAGES
    + _texts("{{ content['text'] }}")
    + "{{ ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    + _texts("{{ ' ' + content['text'] + '<\\s> ' }}")
    + "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)
# llava-onevision-qwen2: chatml with newlines.
ONEVISION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    + _IMAGES
    + "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}"
    "{{ '<video>\n' }}{% endfor %}"
    + _texts("{{ content['text'] }}")
    + "{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Meta-Llama-3-8B-Instruct: in tokenizer_config.json, for texts.
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# Llama 3.2: today's date stands in every prompt.
LLAMA_32 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}"
    "{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{- 'Cutting Knowledge Date: December 2023\n' }}{{- 'Today Date: ' + date_string + '\n\n' }}"
    "{{- system }}{{- '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
