"""The methods EVA is compared with: one file each, beside one YAML in conf/method/."""
