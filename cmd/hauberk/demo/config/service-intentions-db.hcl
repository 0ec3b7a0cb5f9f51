# Only the api may reach the database.
Kind = "service-intentions"
Name = "db"
Sources = [
  {
    Name   = "api"
    Action = "allow"
  },
]
