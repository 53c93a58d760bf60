"""What every room stands on and what knows of none of them: words, colours, values, how to say no; imports no room."""
