# The web front end may call one method of it.
Kind = "service-intentions"
Name = "quotes"
Sources = [
  {
    Name = "web"
    Permissions = [
      {
        Action = "allow"
        HTTP {
          PathExact = "/demo.Quotes/Get"
        }
      },
    ]
  },
]
