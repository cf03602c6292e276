"""What the doors that show pages share: access to an organization, template tags, charts."""
