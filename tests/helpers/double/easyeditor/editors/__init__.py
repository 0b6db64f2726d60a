from .editor import *
