from django.db import models


class Quote(models.Model):
    number = models.IntegerField(unique=True)
    customer = models.TextField()


class SalesDocument(models.Model):
    number = models.IntegerField(unique=True)
    customer = models.TextField()
