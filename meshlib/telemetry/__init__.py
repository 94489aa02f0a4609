"""What happened, under the field's names; trace context.  Pure."""
