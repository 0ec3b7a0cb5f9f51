# The database speaks its own protocol, and speaks first.
Kind     = "service-defaults"
Name     = "db"
Protocol = "tcp"
